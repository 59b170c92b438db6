def add_diff(p): pass
def add_replay(p): pass
