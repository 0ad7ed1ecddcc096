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
        self.assertIn("| b, ms |", self.table(path, "--counter", "ms,us", "--columns", "b").stdout)

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

    def refused(self, *arguments):
        """-> the one line that it says"""
        ran = self.table(*arguments)
        self.assertNotEqual(ran.returncode, 0, arguments)
        self.assertEqual(ran.stdout, "", arguments)
        self.assertRegex(ran.stderr, r"\A[^\n]+\n\Z")
        return ran.stderr

    def test_what_is_not_there(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2]), lab_row("b", [2, 2, 2], error="wrong")]})
        for arguments, says in ((["--op", "rope", "--op", "linear"], "linear"), (["--columns", "a,c"], "'c'"), (["--row", "2b"], "2b"),
                                (["--counter", "ratio"], "ratio"), (["--counter", "us,nonsense"], "nonsense"),
                                (["--row", "("], "regular expression"), (["--columns"], "--columns")):
            self.assertIn(says, self.refused(path, *arguments))
        self.refused()
        before = "<!-- table {} -->\n| kept |\n"
        for arguments in ("", path + " --op linear", path + " --row 2b", path + " '", path + " --help", "absent.json"):
            page = self.write("page.md", before.format(arguments))
            self.assertIn("page.md:1: ", self.refused("--update", page))
            self.refused("--check", page)
            self.assertEqual(pathlib.Path(page).read_text(), before.format(arguments))

    def test_twice(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2])]})
        other = self.write("other.json", {"rows": [lab_row("a", [3, 3, 3])]})
        self.assertIn("lab.json", self.refused(path, other))
        self.refused(path, path)
        self.assertIn("twice", self.refused(self.write("twice.json", {"rows": [lab_row("a", [2, 2, 2])] * 2})))
        run = {"name": "rope/a/bf16/8b/rows=8", "run_type": "iteration", "real_time": 5.0, "time_unit": "us", "repetition_index": 0}
        runs = self.write("runs.json", {"benchmarks": [run | {"repetition_index": i} for i in range(3)]})
        self.assertIn("| bf16/8b/rows=8 | 5.00 |", self.table(runs).stdout)
        self.assertIn("twice", self.refused(self.write("same.json", {"benchmarks": [run] * 3})))
        self.assertIn("too", self.refused(runs, self.write("more.json", {"benchmarks": [run]})))

    def test_samples_are_the_labs_runs(self):
        few = self.write("few.json", {"rows": [lab_row("a", [2, 2, 2], samples=2), lab_row("b", [2, 2, 2], samples=2, error="wrong")]})
        self.assertIn("fewer than 3 runs, as rope/a/", self.refused(few))
        self.assertIn("| 2.00 | FAILED |", self.table(few, "--few").stdout)
        self.assertIn("| 2.00 |", self.table(self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2], samples=3)]})).stdout)
        failed = {"name": "rope/a/bf16", "run_type": "iteration", "error_occurred": True}
        self.assertIn("FAILED", self.table(self.write("failed.json", {"benchmarks": [failed]})).stdout)

    def test_what_is_no_result(self):
        row = lab_row("a", [2, 2, 2])
        del row["dtype"]
        for content in ("{", "[]", "3", "null", '{"rows": 3}', '{"rows": [3]}', '{"benchmarks": [{"run_type": "iteration"}]}', "{}",
                        {"rows": [row]}, {"rows": [lab_row("a", ["x", 2, 2])]}, {"rows": [lab_row("a", 2)]},
                        {"benchmarks": [{"name": "short", "run_type": "iteration"}]}):
            self.assertIn("result.json: ", self.refused(self.write("result.json", content)))
        self.assertIn("absent.json: ", self.refused(str(self.folder / "absent.json")))
        (self.folder / "latin.json").write_bytes(b'{"rows": "\xff"}')
        self.assertIn("latin.json: ", self.refused(str(self.folder / "latin.json")))
        self.assertIn("latin.json: ", self.refused("--check", str(self.folder / "latin.json")))
        self.assertIn("absent.md: ", self.refused("--update", str(self.folder / "absent.md")))

    def test_update_twice_is_update_once(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2]), lab_row("a", [2, 2, 2]) | {"op": "add"}]})
        for below in ("| old |", "| old |\n", "", "\n| another table |\n"):
            page = self.write("page.md", f"<!-- table {path} --op rope -->\n{below}")
            self.assertEqual(self.table("--update", page).returncode, 0)
            once = pathlib.Path(page).read_text()
            self.assertNotIn("old", once)
            self.assertEqual(self.table("--update", page).returncode, 0)
            self.assertEqual(pathlib.Path(page).read_text(), once)
            self.assertEqual(self.table("--check", page).returncode, 0)
        self.assertIn("2 tables", self.refused("--update", self.write("page.md", f"<!-- table {path} -->\n")))

    def test_comments_that_are_nearly_one(self):
        path = self.write("lab.json", {"rows": [lab_row("a", [2, 2, 2])]})
        for comment in ("<!--table {}-->\n", "<!-- table {}-->\n", "<!-- Table {} -->\n", "<!--  table {} -->\n", "<!-- table -->\n",
                        "<!-- table {}\n --op rope -->\n", "<!--\ntable {} -->\n", "<!-- table {} --> \n", "<!-- table {} -->",
                        "text <!-- table {} -->\n", "<!-- table {} --\n"):
            for command in ("--update", "--check"):
                page = self.write("page.md", "\n" + comment.format(path))
                self.assertIn("page.md:2: expected a line", self.refused(command, page))


if __name__ == "__main__":
    unittest.main()
