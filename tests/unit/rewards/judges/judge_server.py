"""An OpenAI-compatible server on loopback with a real (tiny, random) language model behind it: run as a program.

    python judge_server.py [--port N] [--die-after N]

It prints its port when it is ready. POST /v1/chat/completions generates real tokens, or, where the request names a
closed list of replies, picks the likeliest of them by the model. POST /faults takes a list of faults, each of which
the next completion request meets instead; GET /seen says what came in. It knows nothing of rlpipe's judges.
"""

import argparse
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from rlpipe.dataio.tokenizers import bpe


class Model:
    """Two layers of random weights, drawn wide, so that what it reads shows in what it says."""

    def __init__(self):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(1)
        torch.manual_seed(3)
        self.tokenizer = bpe([Path(__file__).read_text()], 600)  # some English
        config = LlamaConfig(
            vocab_size=600,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=8192,
            initializer_range=0.4,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        self.model = LlamaForCausalLM(config).eval()
        self.lock = threading.Lock()

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def pick(self, prompt, replies):
        """Greedy decoding held to the list: the likeliest next token among those that continue some reply."""
        left = {reply: (*self.ids(reply), self.tokenizer.eos_token_id) for reply in replies}
        at = 0
        while len(left) > 1:
            following = sorted({ids[at] for ids in left.values()})
            best = following[0]
            if len(following) > 1:
                said = next(iter(left.values()))[:at]
                logits = self.model(input_ids=torch.tensor([[*prompt, *said]]), logits_to_keep=1).logits[0, -1]
                best = max(following, key=lambda token: logits[token].item())
            left = {reply: ids for reply, ids in left.items() if ids[at] == best}
            at += 1
        return next(iter(left))

    @torch.no_grad()
    def generate(self, prompt, max_tokens):
        out = self.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return self.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)


def listed(request):
    """The closed list of replies that a request asks for, None where it asks for none."""
    if "structured_outputs" in request:
        return request["structured_outputs"]["choice"]
    if "response_format" in request:
        properties = request["response_format"]["json_schema"]["schema"]["properties"]
        [(key, rule)] = properties.items()
        return [json.dumps({key: value}) for value in rule["enum"]]
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.reply(200, {"requests": self.server.requests, "headers": self.server.last_headers})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/faults":
            self.server.faults = list(body)
            self.server.requests = []
            return self.reply(200, {})
        with self.server.lock:
            self.server.requests.append(body)
            self.server.last_headers = dict(self.headers)
            fault = self.server.faults.pop(0) if self.server.faults else None
            if self.server.die_after is not None and len(self.server.requests) > self.server.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
        if fault is not None:
            return self.fail(fault, body)
        return self.reply(200, self.completion(body))

    def completion(self, body):
        model = self.server.model
        prompt = model.ids("\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"]))
        replies = listed(body)
        with model.lock:
            text = model.pick(prompt, replies) if replies else model.generate(prompt, body["max_tokens"])
        spoken = len(model.ids(text))
        return {
            "id": "completion",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
            ],
            "usage": {
                "prompt_tokens": len(prompt),
                "completion_tokens": spoken,
                "total_tokens": len(prompt) + spoken,
            },
        }

    def fail(self, fault, body):
        kind = fault["kind"]
        if kind == "status":
            error = {"message": fault.get("message", "planted"), "type": "planted", "code": fault.get("code")}
            self.reply(fault["status"], {"error": error}, fault.get("headers", {}))
        elif kind == "silence":
            time.sleep(fault["seconds"])
            self.close_connection = True
        elif kind == "trickle":
            # One byte at a time: each read succeeds, and no reply ever comes.
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "100000")
            self.end_headers()
            try:
                for _ in range(int(fault["seconds"] / 0.05)):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                pass
            self.close_connection = True
        elif kind == "body":
            self.reply(200, fault["body"])
        elif kind == "message":
            whole = self.completion(body)
            whole["choices"][0]["finish_reason"] = fault.get("finish_reason", "stop")
            whole["choices"][0]["message"] = {"role": "assistant", **fault["message"]}
            self.reply(200, whole)

    def reply(self, status, body, headers=()):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--die-after", type=int)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.daemon_threads = True
    server.model, server.lock = Model(), threading.Lock()
    server.faults, server.requests, server.last_headers = [], [], {}
    server.die_after = arguments.die_after
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
