#include "server/metrics/http_server.h"

#include <civetweb.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace acuity::server {
namespace {

// A half-open or slow client holds one thread for the time-out and no longer; enough threads are
// left for the real ones.
constexpr const char* kThreads = "32";
constexpr const char* kRequestTimeoutMs = "2000";
// Request line and headers; more is refused.
constexpr const char* kMaxRequestBytes = "8192";

// The page may load its own files and nothing else, and nobody may frame it.
constexpr std::pair<const char*, const char*> kHeaders[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cache-Control", "no-cache"},
};

// Smaller answers are not worth it.
constexpr size_t kMinCompressedBytes = 1024;

// Whether an Accept-Encoding header, null if there is none, names gzip and does not rule it out.
bool AcceptsGzip(const char* header) {
  if (header == nullptr) return false;
  for (std::string coding : absl::StrSplit(header, ',')) {
    coding.erase(std::remove_if(coding.begin(), coding.end(), absl::ascii_isspace), coding.end());
    absl::AsciiStrToLower(&coding);
    if (coding == "gzip" || (coding.rfind("gzip;q=", 0) == 0 &&
                             coding.find_first_of("123456789") != std::string::npos)) {
      return true;
    }
  }
  return false;
}

std::string Gzip(const std::string& text) {
  constexpr int kGzipWindowBits = 15 + 16;  // zlib's way to ask for gzip's header
  constexpr int kMemoryLevel = 8;           // its default
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindowBits, kMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return "";
  }
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool complete = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(complete ? stream.total_out : 0);
  deflateEnd(&stream);
  return out;
}

void Send(mg_connection* connection, int status, const std::string& content_type,
          std::string body) {
  std::string compressed;
  if (body.size() >= kMinCompressedBytes &&
      AcceptsGzip(mg_get_header(connection, "Accept-Encoding"))) {
    compressed = Gzip(body);  // "": out of memory
  }
  mg_response_header_start(connection, status);
  mg_response_header_add(connection, "Vary", "Accept-Encoding", -1);
  if (!compressed.empty()) {
    mg_response_header_add(connection, "Content-Encoding", "gzip", -1);
    body = std::move(compressed);
  }
  mg_response_header_add(connection, "Content-Type", content_type.c_str(), -1);
  mg_response_header_add(connection, "Content-Length", absl::StrCat(body.size()).c_str(), -1);
  for (const auto& [name, value] : kHeaders) {
    mg_response_header_add(connection, name, value, -1);
  }
  if (status == 405) mg_response_header_add(connection, "Allow", "GET", -1);
  mg_response_header_send(connection);
  mg_write(connection, body.data(), body.size());  // a client that is gone loses it
}

class CivetwebServer : public HttpServer {
 public:
  explicit CivetwebServer(std::map<std::string, HttpResource> resources)
      : resources_(std::move(resources)) {}
  ~CivetwebServer() override {
    if (context_ != nullptr) mg_stop(context_);
  }

  absl::Status Listen(const std::string& listen) {
    // civetweb knows addresses, not names.
    std::string address = listen;
    if (address.rfind("localhost:", 0) == 0) address.replace(0, 9, "127.0.0.1");
    const char* options[] = {"listening_ports",  address.c_str(),      "num_threads",
                             kThreads,           "request_timeout_ms", kRequestTimeoutMs,
                             "max_request_size", kMaxRequestBytes,     nullptr};
    mg_callbacks callbacks{};
    callbacks.log_message = [](const mg_connection*, const char*) { return 1; };  // not on stderr
    context_ = mg_start(&callbacks, nullptr, options);
    mg_server_port port{};
    if (context_ == nullptr || mg_get_server_ports(context_, 1, &port) != 1) {
      return absl::UnavailableError(absl::StrCat("--metrics-listen: cannot bind ", listen,
                                                 ": in use, not permitted or not HOST:PORT"));
    }
    address_ = absl::StrCat(address.substr(0, address.rfind(':') + 1), port.port);
    mg_set_request_handler(context_, "**", &CivetwebServer::Handle, this);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  // Returns the status code: the request is answered.
  static int Handle(mg_connection* connection, void* self) {
    const mg_request_info* request = mg_get_request_info(connection);
    const auto& resources = static_cast<CivetwebServer*>(self)->resources_;
    const auto found = resources.find(request->local_uri);
    if (found == resources.end()) {
      Send(connection, 404, "text/plain", "There is nothing here.\n");
      return 404;
    }
    if (std::strcmp(request->request_method, "GET") != 0) {
      Send(connection, 405, "text/plain", "GET only.\n");
      return 405;
    }
    Send(connection, 200, found->second.content_type, found->second.body());
    return 200;
  }

  const std::map<std::string, HttpResource> resources_;
  mg_context* context_ = nullptr;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& listen, std::map<std::string, HttpResource> resources) {
  auto server = std::make_unique<CivetwebServer>(std::move(resources));
  const absl::Status listening = server->Listen(listen);
  if (!listening.ok()) return listening;
  return server;
}

}  // namespace acuity::server
