"""HDF5 files of robomimic, ALOHA and others."""
