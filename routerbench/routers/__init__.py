"""One method a file; `conf/router/*.yaml` names each, and nothing else does."""
