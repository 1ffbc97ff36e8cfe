"""Read raster files with GDAL, through rasterio."""
