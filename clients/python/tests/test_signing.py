import json
import unittest

from labmesh import signing

KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
VECTORS = [
    ('{"timestamp": 1715000000, "type": "heartbeat_response"}', "doNsdv063uEXFHAiOLHuhkt3q2H1dcJtPsnUZvHzRZw="),
    (
        '{"capabilities": {"gpu": {"count": 1, "cuda_compute": 7.5}, "hardware": ["cpu", "cuda"], "memory": {"available_gb": 8.0, "total_gb": 23.54}, '
        '"webnn": {"available": false}, "x": null}, "hostname": "h\\u00f6st", "timestamp": 1715000000, "type": "register", "worker_id": "worker-1"}',
        "UKn01d/ZzUiySkctfw8muhuhJUVGrySsTJ4AEmQ/4+Y=",
    ),
    (
        '{"execution_time_seconds": 4.3e-05, "hardware_metrics": {"cpu_percent": 100.0}, "result": {"big": 1e+16, "e": [], "int": 5, "o": {}, '
        '"small": 1e-07, "text": "a\\"b/\\u2028\\u20ac<>&"}, "status": "completed", "task_id": "t1", "timestamp": 1715000000, "type": "task_result", '
        '"worker_id": "worker-1"}',
        "/I+c2iQtNYounrG30AWajbcB2EuFJiQmFWoWXpKnLhI=",
    ),
]


class Signing(unittest.TestCase):
    def test_vectors(self) -> None:
        for text, want in VECTORS:
            message = json.loads(text)
            self.assertEqual(signing.canonical(message), text)
            self.assertEqual(signing.signature(message, KEY), want)
            self.assertTrue(signing.verify({**message, "signature": want}, KEY, now=1715000059))

    def test_what_is_signed_is_verified_and_nothing_else(self) -> None:
        signed = signing.sign({"type": "heartbeat", "n": 1.5, "text": "é"}, KEY, now=1000.9)
        self.assertEqual(signed["timestamp"], 1000)
        self.assertTrue(signing.verify(signed, KEY, now=1000))
        self.assertTrue(signing.verify(json.loads(json.dumps(signed)), KEY, now=1060))
        self.assertFalse(signing.verify(signed, KEY, now=1061), "too late")
        self.assertFalse(signing.verify(signed, KEY, now=939), "too early")
        self.assertFalse(signing.verify(signed, KEY[:-1] + "0", now=1000), "another key")
        self.assertFalse(signing.verify({**signed, "n": 1.6}, KEY, now=1000), "changed")
        for wrong in ({"signature": 5}, {"signature": "é"}, {"timestamp": "1000"}, {"timestamp": True}, {"x": float("nan")}):
            self.assertFalse(signing.verify({**signed, **wrong}, KEY, now=1000), wrong)
        self.assertFalse(signing.verify({"type": "heartbeat"}, KEY))

    def test_two_equal_messages_of_a_second_are_two(self) -> None:
        one, two = (signing.sign({"type": "heartbeat"}, KEY, now=1000) for _ in range(2))
        self.assertNotEqual(one["signature"], two["signature"])
