def take(*a, **k):
    return None


def render(p):
    return []
