"""Files on disks, in buckets and on web servers."""
