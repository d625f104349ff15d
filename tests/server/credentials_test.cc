#include "server/grpc/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace acuity::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

// Keys and certificates are made here, with OpenSSL.
class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    std::string pattern = ::testing::TempDir() + "credentials.XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~CredentialsTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ / name; }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(Path(name)) << text;
  }

  // NAME.key, encrypted if there is a passphrase, and NAME.crt, signed by itself.
  void MakePair(const std::string& name, const char* passphrase = nullptr) {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                  &EVP_PKEY_free);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_set_pubkey(certificate.get(), key.get());
    ASSERT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
    FILE* file = std::fopen(Path(name + ".key").c_str(), "w");
    const EVP_CIPHER* cipher = passphrase == nullptr ? nullptr : EVP_aes_128_cbc();
    PEM_write_PrivateKey(file, key.get(), cipher, nullptr, 0, nullptr,
                         const_cast<char*>(passphrase));
    std::fclose(file);
    file = std::fopen(Path(name + ".crt").c_str(), "w");
    PEM_write_X509(file, certificate.get());
    std::fclose(file);
  }

  void ExpectRefused(const TlsFiles& files, const std::string& flag, const std::string& what) {
    const absl::Status status = TlsCredentials::Load(files).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith(flag + ": "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }

  std::filesystem::path folder_;
};

TEST_F(CredentialsTest, LoadsAPairAndHandsItOutOnce) {
  MakePair("a");
  MakePair("ca");
  const auto tls = TlsCredentials::Load({Path("a.crt"), Path("a.key"), Path("ca.crt")});
  ASSERT_TRUE(tls.ok()) << tls.status();
  EXPECT_THAT((*tls)->not_after(), EndsWith("GMT"));
  const auto material = (*tls)->TakeNew();
  ASSERT_NE(material, nullptr);
  EXPECT_THAT(material->cert, HasSubstr("BEGIN CERTIFICATE"));
  EXPECT_THAT(material->key, HasSubstr("PRIVATE KEY"));
  EXPECT_NE(material->client_ca, material->cert);
  EXPECT_EQ((*tls)->TakeNew(), nullptr);
  EXPECT_TRUE((*tls)->Reload().ok());
  EXPECT_NE((*tls)->TakeNew(), nullptr);
}

TEST_F(CredentialsTest, RefusesWhatDoesNotFitAndNamesTheFile) {
  MakePair("a");
  MakePair("b");
  MakePair("locked", "secret");
  Write("text", "no PEM");
  Write("large", std::string((1 << 20) + 1, 'x'));
  ExpectRefused({Path("none"), Path("a.key"), ""}, "--tls-cert", "none: cannot be read");
  ExpectRefused({Path("a.crt"), Path("none"), ""}, "--tls-key", "none: cannot be read");
  ExpectRefused({Path("text"), Path("a.key"), ""}, "--tls-cert", "holds no PEM certificate");
  ExpectRefused({Path("a.crt"), Path("text"), ""}, "--tls-key", "holds no PEM private key");
  ExpectRefused({Path("a.crt"), Path("b.key"), ""}, "--tls-key", "is not the key");
  ExpectRefused({Path("locked.crt"), Path("locked.key"), ""}, "--tls-key", "without a passphrase");
  ExpectRefused({Path("a.crt"), Path("a.key"), Path("text")}, "--tls-client-ca", "holds no PEM");
  ExpectRefused({Path("a.crt"), Path("a.key"), Path("none")}, "--tls-client-ca", "cannot be read");
  ExpectRefused({Path("large"), Path("a.key"), ""}, "--tls-cert", "more than 1 MiB");
}

TEST_F(CredentialsTest, ABrokenReloadLeavesThePairInUse) {
  MakePair("a");
  MakePair("b");
  const auto tls = TlsCredentials::Load({Path("a.crt"), Path("a.key"), ""});
  ASSERT_TRUE(tls.ok());
  const std::string first = (*tls)->TakeNew()->cert;
  std::filesystem::copy_file(Path("b.crt"), Path("a.crt"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_FALSE((*tls)->Reload().ok());  // the certificate changed, its key did not yet
  EXPECT_EQ((*tls)->TakeNew(), nullptr);
  std::filesystem::copy_file(Path("b.key"), Path("a.key"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE((*tls)->Reload().ok());
  const auto second = (*tls)->TakeNew();
  ASSERT_NE(second, nullptr);
  EXPECT_NE(second->cert, first);
}

}  // namespace
}  // namespace acuity::server
