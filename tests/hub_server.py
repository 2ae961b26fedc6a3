"""A small model hub on loopback: what pulling a model uses of Hugging Face's protocol, and every way to break it.

Large files are redirected to a second server under another host name, as the real hub does with its CDN.
"""
import hashlib
import http.server
import json
import threading
import time
import urllib.parse

LFS_ENDINGS = (".safetensors", ".gguf")


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub = self.server.hub
        with hub.lock:
            hub.requests.append((self.server.role, self.path, dict(self.headers)))
            for fault in hub.faults:
                answer = fault(self) if fault.role in ("any", self.server.role) else False
                if answer:
                    break
            else:
                answer = False
        if answer is False:
            (hub.answer if self.server.role == "hub" else hub.answer_cdn)(self)
        elif callable(answer):
            answer()

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.close_connection = True

    def reply_file(self, data, etag, cut_after=None, bytes_per_s=None):
        """The file, or the range that is asked for; cut short or slowly if wanted."""
        begin, end, status, headers = 0, len(data), 200, {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range", f'"{etag}"') == f'"{etag}"':
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end, status = int(first), min(int(last) + 1 if last else end, end), 206
            if begin >= len(data):
                return self.reply(416)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        body = memoryview(data)[begin:end]
        if cut_after is not None and cut_after < len(body):
            self.wfile.write(body[:cut_after])
            self.wfile.flush()
            return self.hang_up()
        step = len(body) if bytes_per_s is None else max(1, bytes_per_s // 20)
        for at in range(0, len(body), max(1, step)):
            self.wfile.write(body[at:at + step])
            if bytes_per_s is not None:
                time.sleep(step / bytes_per_s)


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub, role):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.role = hub, role
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients hang up in these tests


class HubServer:
    """repos: {"org/repo": {"config.json": bytes, ...}}. Use as a context manager."""

    def __init__(self, repos):
        self.repos = repos
        self.lock = threading.Lock()
        self.requests = []  # (role, path, headers)
        self.faults = []
        self.private_token = None
        self.sizes = {}  # file name -> the size that the listing states
        self.digests = {}  # file name -> the SHA-256 that the listing states
        self.hub, self.cdn = Listener(self, "hub"), Listener(self, "cdn")
        self.url = f"http://127.0.0.1:{self.hub.server_port}"
        self.cdn_url = f"http://localhost:{self.cdn.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for listener in (self.hub, self.cdn):
            listener.shutdown()
            listener.server_close()

    def commit(self, repo):
        files = self.repos[repo]
        names_and_contents = (name.encode() + sha256(files[name]).encode() for name in sorted(files))
        return hashlib.sha1(b"".join(names_and_contents)).hexdigest()

    def fail(self, fault, role="any", times=None):
        """`fault(handler)` answers a request (True, or a function that does so outside the lock) or leaves it."""
        left = [times]

        def counted(handler):
            if left[0] == 0:
                return False
            answer = fault(handler)
            if answer and left[0] is not None:
                left[0] -= 1
            return answer

        counted.role = role
        self.faults.append(counted)

    def served(self, ending, role=None):
        """Paths of the requests for a file."""
        with self.lock:
            return [path for who, path, _ in self.requests
                    if path.split("?")[0].endswith(ending) and role in (None, who)]

    def headers_of(self, role):
        with self.lock:
            return [headers for who, _, headers in self.requests if who == role]

    def listing(self, repo):
        siblings = []
        for name, data in self.repos[repo].items():
            entry = {"rfilename": name, "size": self.sizes.get(name, len(data)), "blobId": git_sha1(data)}
            if name.endswith(LFS_ENDINGS):
                digest = self.digests.get(name, sha256(data))
                entry["lfs"] = {"sha256": digest, "size": entry["size"], "pointerSize": 134}
            siblings.append(entry)
        return {"id": repo, "sha": self.commit(repo), "siblings": siblings}

    def answer(self, handler):
        path = urllib.parse.unquote(handler.path.split("?")[0]).lstrip("/")
        if self.private_token and handler.headers.get("Authorization") != f"Bearer {self.private_token}":
            return handler.reply(401, b"{}", X_Error_Code="GatedRepo")
        api = path.startswith("api/models/")
        repo = "/".join((path.removeprefix("api/models/") if api else path).split("/")[:2])
        if repo not in self.repos:
            return handler.reply(404, b'{"error":"Repository not found"}', X_Error_Code="RepoNotFound")
        what, revision, name = (path.split(f"{repo}/", 1)[1] + "//").split("/", 2)
        if revision not in ("main", self.commit(repo)):
            return handler.reply(404, b"{}", X_Error_Code="RevisionNotFound")
        if api:
            assert what == "revision" and handler.path.endswith("?blobs=true"), handler.path
            return handler.reply(200, json.dumps(self.listing(repo)).encode(), Content_Type="application/json")
        name = name.rstrip("/")
        if what != "resolve" or name not in self.repos[repo]:
            return handler.reply(404, b"Entry not found", X_Error_Code="EntryNotFound")
        if name.endswith(LFS_ENDINGS):
            target = f"{self.cdn_url}/{repo}/{urllib.parse.quote(name)}?signature=secret"
            return handler.reply(302, b"moved", Location=target, X_Linked_Etag=sha256(self.repos[repo][name]))
        data = self.repos[repo][name]
        handler.reply_file(data, git_sha1(data))

    def file_of(self, handler):
        """The bytes that a request to the CDN is for."""
        path = urllib.parse.unquote(handler.path.split("?")[0]).lstrip("/")
        org, repo, name = path.split("/", 2)
        return self.repos[f"{org}/{repo}"][name]

    def answer_cdn(self, handler):
        data = self.file_of(handler)
        handler.reply_file(data, sha256(data))
