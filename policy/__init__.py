"""Pure: what operators adjust.  Text and facts in, decisions out; no I/O, no clock."""
