"""Asks a server what its description says it answers, and what it does not: python3 schema.py ROXANNE SCHEMATHESIS [EXAMPLES]

Every operation of /openapi.json, by valid and by broken requests, with a key and without. What comes back must be described: no error of the server,
no status, type or body that is not written down, nothing answered without the key, nothing broken accepted. With more than 50 EXAMPLES every bound of
every schema is tried as well, which takes minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

from serving import serving

KEY = "of-the-test"
# What is not held: a schema knows no collection's dimension, and 7.0 is no whole number here (positive_data_acceptance); what Qdrant has and this
# has not is 501 (unsupported_method, and not_a_server_error, for which there is no_failure in schema_checks.py).
EXCLUDED = "positive_data_acceptance,unsupported_method,not_a_server_error"
# They run other programs, or wait for what never comes.
LEFT_OUT = "/v1/(builds|verifications|plan)|/events$|^/dashboard"


def ask(url, method, path, body):
    request = urllib.request.Request(url + path, method=method, data=json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    request.add_header("api-key", KEY)
    return urllib.request.urlopen(request).read()


def main(roxanne, schemathesis, examples):
    served = {"ROXANNE_API_KEY": KEY, "PATH": ""}
    with tempfile.TemporaryDirectory() as work, serving(roxanne, f"{work}/data", "--log-level", "error", env=served) as url:
        for name in ["docs", "0"]:
            ask(url, "PUT", f"/collections/{name}", {"vectors": {"size": 4, "distance": "Cosine"}})
            points = [{"id": i, "vector": [1, i, 2, 3], "payload": {"n": i}} for i in range(20)]
            ask(url, "PUT", f"/collections/{name}/points", {"points": points})
        run = [schemathesis, "run", f"{url}/openapi.json", "-H", f"api-key: {KEY}", "-n", examples, "--seed", "1", "--no-color"]
        run += ["--exclude-checks", EXCLUDED, "--exclude-path-regex", LEFT_OUT, "--generation-database", "none"]
        run += ["--phases", "coverage,fuzzing" if int(examples) > 50 else "fuzzing"]
        env = {**os.environ, "SCHEMATHESIS_HOOKS": "schema_checks", "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
        outcome = subprocess.run(run, cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if outcome.returncode:
            sys.exit(outcome.stdout)
    print(f"schema: {outcome.stdout.strip().splitlines()[-1].strip('= ')}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "20")
