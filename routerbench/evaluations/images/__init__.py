"""Other images than those a run was tested on."""
