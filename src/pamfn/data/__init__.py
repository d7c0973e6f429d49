"""Label files, feature files and the data modules made of them."""
