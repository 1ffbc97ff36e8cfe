"""The eager calls: sample, plan and crop in this process."""
