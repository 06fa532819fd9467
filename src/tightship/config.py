from dataclasses import dataclass, field
class ConfigError(ValueError): pass
@dataclass
class Config:
    enabled: bool=True; threshold: str="strong"; thresholds: dict=field(default_factory=dict); grace: float=1.0
    journal: str|None=None; fail_on_fault: bool=False; max_findings: int=10
def load(root, *, env, cli, kinds, today): return Config(enabled=cli["enabled"] is not False, journal=cli["journal"])
@dataclass
class M: rules: tuple=()
def from_marker(args, kwargs, **k): return M()
