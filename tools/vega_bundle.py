"""Makes `src/wobbliness/reports/templates/vega.js.gz`, the drawing library that every report holds.

Run it again to move to another version. It is kept ready-made because making it takes seconds and a
package of 80 MB, which no reader of a study should need.
"""

import gzip
from pathlib import Path

import vl_convert

BUNDLE = Path(__file__).parents[1] / "src" / "wobbliness" / "reports" / "templates" / "vega.js.gz"


def main() -> None:
    """Writes Vega, Vega-Lite and vega-embed as one script, gzipped without a time stamp."""
    script = vl_convert.javascript_bundle(vl_version="6.4")
    BUNDLE.write_bytes(gzip.compress(script.encode("utf-8"), compresslevel=9, mtime=0))
    print(
        f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes of vega {vl_convert.get_vega_version()}, "
        "vega-lite 6.4"
    )


if __name__ == "__main__":
    main()
