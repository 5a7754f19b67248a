"""`python -m mcp_sessions` says what is installed."""

import platform

from . import _native


def main() -> None:
    """Print the version and the build."""
    print(
        f"mcp-sessions {_native.VERSION} ({_native.PROFILE} build; {', '.join(_native.backends())}) "
        f"on {platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )


main()
