"""bench/table.py: what it shows, what it refuses, and that a page's table is what its files say."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def lab_row(impl, us, **more):
    return {"op": "rope", "impl": impl, "label": "8b", "dtype": "bf16", "name": "bf16/8b/rows=8,dim=4", "us": us} | more


class Table(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, content):
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return str(self.folder / name)

    def table(self, *arguments):
        return subprocess.run([sys.executable, ROOT / "bench/table.py", *arguments], capture_output=True, text=True)

    def test_lab(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 1.9, 2.1]), lab_row("b", [4, 4, 4], ratio=[2, 1.9, 2.2]),
                                                lab_row("c", [4, 4, 4], error="it is wrong")]})
        self.assertEqual(self.table(path).stdout, "\n| rope, us | a | b | c |\n|---|---|---|---|\n"
                                                  "| bf16/8b/rows=8,dim=4 | 2.00 ±0.10 | 4.00 | FAILED |\n")
        self.assertEqual(self.table(path, "--counter", "us,ratio", "--columns", "b,a", "--hide", "dim").stdout,
                         "\n| rope | b, us | a, us | b, ratio |\n|---|---|---|---|\n"
                         "| bf16/8b/rows=8 | 4.00 | 2.00 ±0.10 | 2.000 [1.900, 2.200] |\n")
        self.assertEqual(self.table(path, "--row", "2b").stdout, "\n\n")

    def test_few_runs(self):
        row = {"name": "workload/vlr/bf16/8b/1x128", "run_type": "iteration", "real_time": 5.0, "time_unit": "ms"}
        path = self.write("bench.json", {"benchmarks": [row]})
        refused = self.table(path)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("fewer than 3 runs", refused.stderr)
        self.assertIn("| bf16/8b/1x128 | 5.00 |", self.table(path, "--few", "--counter", "ms").stdout)
        self.assertIn("| bf16/8b/1x128 | 5000 |", self.table(path, "--few").stdout)

    def test_pages(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2])]})
        page = self.write("page.md", f"before\n\n<!-- table {path} --columns a -->\n| old |\n|---|\n\nafter\n")
        self.assertNotEqual(self.table("--check", page).returncode, 0)
        self.assertEqual(self.table("--update", page).returncode, 0)
        self.assertEqual(self.table("--check", page).returncode, 0)
        text = pathlib.Path(page).read_text()
        self.assertIn("-->\n| rope, us | a |\n|---|---|\n| bf16/8b/rows=8,dim=4 | 2.00 |\n\nafter\n", text)
        self.write("page.md", text.replace("2.00", "1.00"))
        self.assertNotEqual(self.table("--check", page).returncode, 0)


if __name__ == "__main__":
    unittest.main()
