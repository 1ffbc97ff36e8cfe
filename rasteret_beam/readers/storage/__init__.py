"""Read files on local disks, in buckets and on web servers."""
