#include "server/grpc/credentials.h"

#include <grpc/grpc_security.h>
#include <grpcpp/security/server_credentials.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::server {
namespace {

using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free)>;
using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

BioPtr Memory(const std::string& pem) {
  return {BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free};
}

absl::Status Invalid(const char* flag, const std::string& path, const std::string& what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, ": ", what));
}

absl::StatusOr<std::string> ReadPem(const char* flag, const std::string& path) {
  constexpr size_t kMaxBytes = 1 << 20;
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) return Invalid(flag, path, "cannot be read");
  if (text.size() > kMaxBytes) return Invalid(flag, path, "more than 1 MiB");
  return text;
}

// An encrypted key would make OpenSSL ask on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

// The first certificate of a PEM text, or null.
X509Ptr FirstCertificate(const std::string& pem) {
  const BioPtr bio = Memory(pem);
  return {PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr), &X509_free};
}

std::string NotAfter(const X509* certificate) {
  const BioPtr out(BIO_new(BIO_s_mem()), &BIO_free);
  ASN1_TIME_print(out.get(), X509_get0_notAfter(certificate));
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

absl::StatusOr<TlsCredentials::Material> ReadMaterial(const TlsFiles& files) {
  TlsCredentials::Material material;
  absl::StatusOr<std::string> cert = ReadPem("--tls-cert", files.cert);
  if (!cert.ok()) return cert.status();
  absl::StatusOr<std::string> key = ReadPem("--tls-key", files.key);
  if (!key.ok()) return key.status();
  const X509Ptr certificate = FirstCertificate(*cert);
  if (certificate == nullptr) return Invalid("--tls-cert", files.cert, "holds no PEM certificate");
  const BioPtr key_bio = Memory(*key);
  const KeyPtr private_key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, &NoPassphrase, nullptr),
                           &EVP_PKEY_free);
  if (private_key == nullptr) {
    return Invalid("--tls-key", files.key, "holds no PEM private key without a passphrase");
  }
  if (X509_check_private_key(certificate.get(), private_key.get()) != 1) {
    return Invalid("--tls-key", files.key,
                   absl::StrCat("is not the key of the certificate in ", files.cert));
  }
  if (!files.client_ca.empty()) {
    absl::StatusOr<std::string> ca = ReadPem("--tls-client-ca", files.client_ca);
    if (!ca.ok()) return ca.status();
    if (FirstCertificate(*ca) == nullptr) {
      return Invalid("--tls-client-ca", files.client_ca, "holds no PEM certificate");
    }
    material.client_ca = *std::move(ca);
  }
  material.not_after = NotAfter(certificate.get());
  material.cert = *std::move(cert);
  material.key = *std::move(key);
  return material;
}

// The core calls this at each handshake, one at a time; a bad answer would leave the last good one
// in use.
grpc_ssl_certificate_config_reload_status Fetch(void* user_data,
                                                grpc_ssl_server_certificate_config** config) {
  const auto material = static_cast<TlsCredentials*>(user_data)->TakeNew();
  if (material == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair{material->key.c_str(), material->cert.c_str()};
  // 1.51 insists on an authority; where no client is asked for a certificate, it is not used.
  const std::string& ca = material->client_ca.empty() ? material->cert : material->client_ca;
  *config = grpc_ssl_server_certificate_config_create(ca.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

grpc_server_credentials* CreateCore(TlsCredentials* source, bool ask_for_client_certificate) {
  const auto request = ask_for_client_certificate
                           ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                           : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(request, &Fetch, source));
}

// gRPC's C++ layer does not offer the C core's certificate fetcher, so this class does. It dies
// with the ServerBuilder, long before the core's last call of Fetch: it holds nothing that Fetch
// needs.
class FetchingCredentials final : public grpc::ServerCredentials {
 public:
  explicit FetchingCredentials(grpc_server_credentials* core) : core_(core) {}
  ~FetchingCredentials() override { grpc_server_credentials_release(core_); }
  // Calls are authenticated elsewhere (auth.h), with or without TLS.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), core_);
  }

  grpc_server_credentials* core_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TlsCredentials>> TlsCredentials::Load(TlsFiles files) {
  std::unique_ptr<TlsCredentials> made(new TlsCredentials(std::move(files)));
  const absl::Status loaded = made->Reload();
  if (!loaded.ok()) return loaded;
  return made;
}

absl::Status TlsCredentials::Reload() {
  absl::StatusOr<Material> material = ReadMaterial(files_);
  if (!material.ok()) return material.status();
  auto shared = std::make_shared<const Material>(*std::move(material));
  std::lock_guard lock(mutex_);
  material_ = std::move(shared);
  taken_ = false;
  return absl::OkStatus();
}

std::shared_ptr<const TlsCredentials::Material> TlsCredentials::TakeNew() {
  std::lock_guard lock(mutex_);
  return std::exchange(taken_, true) ? nullptr : material_;
}

std::string TlsCredentials::not_after() const {
  std::lock_guard lock(mutex_);
  return material_->not_after;
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials::MakeServerCredentials() {
  return std::make_shared<FetchingCredentials>(CreateCore(this, !files_.client_ca.empty()));
}

}  // namespace acuity::server
