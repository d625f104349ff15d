"""What tests of tokens and TLS need: lines of a token file, authorities and certificates, made with openssl."""

import hashlib
import os
import subprocess
import tempfile


def token_line(tenant, token):
    return f"{tenant} {hashlib.sha256(token.encode()).hexdigest()}\n"


class Certificates:
    """Mixed into a TestCase: files NAME.key and NAME.crt in a folder of its own."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def authority(self, name):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                     "-subj", f"/CN={name}", "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.crt"))

    def certificate(self, name, ca):
        with open(self.path("ext"), "w") as file:
            file.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", self.path(f"{name}.key.new"), "-out", self.path("csr"))
        self.openssl("x509", "-req", "-days", "2", "-in", self.path("csr"), "-CA", self.path(f"{ca}.crt"),
                     "-CAkey", self.path(f"{ca}.key"), "-CAcreateserial", "-extfile", self.path("ext"),
                     "-out", self.path(f"{name}.crt.new"))
        os.rename(self.path(f"{name}.key.new"), self.path(f"{name}.key"))
        os.rename(self.path(f"{name}.crt.new"), self.path(f"{name}.crt"))
