import json
import os
import tempfile
import unittest
from pathlib import Path

from labmesh import DeniedError, InvalidError, UnavailableError
from labmesh.discovery import default_data_dir, discover, parse_urls


class Discovery(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.dir = Path(held.name)
        self.file = self.dir / "api.json"
        self.file.write_text(json.dumps({"url": "http://127.0.0.1:1234", "api_key": "own", "node_id": "n"}))
        self.env = {"LABMESH_DATA_DIR": held.name}

    def test_the_node_of_this_machine(self) -> None:
        found = discover(env=self.env)
        self.assertEqual((found.urls, found.api_key, found.source), (("http://127.0.0.1:1234",), "own", str(self.file)))
        self.assertEqual(discover(env={**self.env, "LABMESH_API_KEY": "other"}).api_key, "other")
        self.assertEqual(discover(data_dir=self.dir, env={"LABMESH_DATA_DIR": "/nowhere"}).api_key, "own")

    def test_its_key_goes_nowhere_else(self) -> None:
        self.assertEqual(discover("127.0.0.1:1234/", env=self.env).api_key, "own")
        for elsewhere in ("127.0.0.1:1235", "https://127.0.0.1:1234", "127.0.0.1:1234,evil:80"):
            self.assertIsNone(discover(elsewhere, env=self.env).api_key, elsewhere)
        self.assertEqual(discover(env={**self.env, "LABMESH_ADDR": "lab:1", "LABMESH_API_KEY": "k"}).urls, ("http://lab:1",))

    def test_what_is_not_there_is_said(self) -> None:
        with self.assertRaisesRegex(UnavailableError, "labmesh up"):
            discover(env={"LABMESH_DATA_DIR": str(self.dir / "none")})
        for damaged in ("{", "[]", '{"url": 5}', '{"api_key": "k"}', '{"url": "ftp://x"}', '{"url": "http://x", "api_key": 5}'):
            self.file.write_text(damaged)
            with self.assertRaises(InvalidError, msg=damaged):
                discover(env=self.env)
        if os.getuid() != 0:
            self.file.chmod(0)
            with self.assertRaises(DeniedError):
                discover(env=self.env)

    def test_addresses(self) -> None:
        self.assertEqual(parse_urls("a:1, https://b/x/,a:1"), ("http://a:1", "https://b/x"))
        self.assertEqual(parse_urls(["[::1]:8080"]), ("http://[::1]:8080",))
        for wrong in ("", ",", "ftp://a", "http://", "a:x", "a:99999", "a:0", "http://u:p@a", "a b:1", "http://[::1"):
            with self.assertRaises(InvalidError, msg=wrong):
                parse_urls(wrong)

    def test_the_usual_place(self) -> None:
        self.assertEqual(default_data_dir({"XDG_DATA_HOME": "/x"}), Path("/x/labmesh"))
        self.assertEqual(default_data_dir({"XDG_DATA_HOME": "x", "HOME": "/h"}), Path("/h/.local/share/labmesh"))
