def fingerprint(f): return f.kind+f.label+f.owner
