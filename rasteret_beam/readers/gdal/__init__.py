"""Raster files as GDAL reads them, through rasterio."""
