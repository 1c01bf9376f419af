"""Names and defaults of lists in parts that the command needs: this module loads no library."""

ENGINES = ("local", "ray")
USERS_PER_PART = 50_000
