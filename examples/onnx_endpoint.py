"""A model behind HTTP: the server needs onnxruntime and numpy, but neither torch nor recvae.

python examples/onnx_endpoint.py --port 8000 --out films      needs: pip install "recvae[onnx]" onnxruntime
curl -d '{"history": [17, 42], "N": 5}' http://127.0.0.1:8000/
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime


def answer_by(path):
    """A request handler for {"history": raw ids, "N": length of the list}, with the ONNX file at `path`."""
    session = onnxruntime.InferenceSession(str(path))
    raw_ids = json.loads(session.get_modelmeta().custom_metadata_map["recvae"])["item_ids"]
    index_of = {raw_id: index for index, raw_id in enumerate(raw_ids)}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                items = sorted({index_of[raw_id] for raw_id in request["history"] if raw_id in index_of})
                events = {"items": np.array(items, np.int64), "offsets": np.array([0, len(items)])}
                (ids,), (scores,) = session.run(None, events | {"N": np.array(min(max(request["N"], 1), 1000))})
            except (TypeError, ValueError, KeyError) as error:
                return self._send(400, {"error": f'expected {{"history": [ids], "N": 10}}: {error!r}'})
            best = [{"item": raw_ids[i], "score": float(s)} for i, s in zip(ids, scores, strict=True) if i >= 0]
            return self._send(200, best)

        def _send(self, status, content):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 finds a free one")
    parser.add_argument("--out", type=Path, default=Path("films"), help="folder of the two model files")
    arguments = parser.parse_args()
    import recvae  # only to train, which is usually done elsewhere
    from recvae.serving.export import export_onnx

    model = recvae.MultVAE(epochs=10, random_state=0).fit(recvae.load_dataset("sample"))
    model.save(arguments.out / "films.recvae")
    export_onnx(model, arguments.out / "films.onnx")
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), answer_by(arguments.out / "films.onnx"))
    print(f"listening at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
