from .model import *
class Policy:
    def __init__(self, s): pass
    def judge(self, fs, *, nodeid, markers, expectations, own_failure):
        return [f.with_(verdict=f.verdict if f.verdict is Verdict.SLOW else Verdict.NOTE if own_failure or f.certainty<2 else Verdict.FAIL) for f in fs]
    def usage(self): return {}
    def merge_usage(self,u): pass
    def unused(self): return []
    def expired(self): return []
def group(fs): return fs
