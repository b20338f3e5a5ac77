"""A patch refuses a function it does not know."""

import contextlib
import types
import unittest

from overlay import patching


def known() -> str:
    """Stands for a function of the emulator."""
    return "known"


class Patching(unittest.TestCase):
    def setUp(self):
        self.module = types.ModuleType("emulator_module")
        self.module.known = known
        self.addCleanup(patching._mismatches.clear)

    def test_a_known_function_is_replaced_also_in_its_table(self):
        table = {"Known": known}
        self.assertIs(known, patching.replace(self.module, "known", str, patching.digest(known), table, "Known"))
        self.assertEqual((str, str), (self.module.known, table["Known"]))
        patching.finish()

    def test_a_changed_or_missing_function_stops_the_start(self):
        for attempt in (
            lambda: patching.replace(self.module, "known", str, "000000000000"),
            lambda: patching.replace(self.module, "gone", str, "000000000000"),
            lambda: patching.relies_on(self.module, "gone", "000000000000"),
            lambda: patching.replace(self.module, "known", str, patching.digest(known), {"Known": None}, "Known"),
        ):
            self.module.known = known
            vars(self.module).pop("gone", None)
            with contextlib.suppress(AttributeError):
                attempt()
            with self.assertRaises(SystemExit) as caught:
                patching.finish()
            self.assertIn("emulator_module", str(caught.exception))
            patching._mismatches.clear()
