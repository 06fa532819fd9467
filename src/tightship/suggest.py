def unknown(w,v,what): return f"unknown {what} {w}"
