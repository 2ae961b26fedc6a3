"""docs/configuration.md holds the table that the binary prints about its settings."""
from harness import ROOT, run


def test_the_settings_table_is_the_programs_own():
    table = run("serve", "--describe-config").stdout
    assert table.count("\n") > 30
    assert table in (ROOT / "docs/configuration.md").read_text()
