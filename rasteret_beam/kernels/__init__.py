"""Pure, vectorised functions on numpy and Arrow arrays: no Beam, no files, no network."""
