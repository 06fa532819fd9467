"""Evidence for a person: where a task is stuck, what an fd is, who holds an object."""
