"""Maps of the footprints of a collection: for its HTML, and with Folium, Lonboard or Matplotlib."""
