#include "clients/cpp/child_daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"

namespace acuity::client {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPoll{50};
constexpr int kPollsToEnd = 200;  // 10 s between SIGTERM and SIGKILL
constexpr size_t kLogTail = 2000;

std::string Tail(const std::string& log) {
  std::string text;
  try {
    text = ReadFile(log);
  } catch (const std::exception&) {
    return "it left no log";
  }
  return text.size() <= kLogTail ? text : text.substr(text.size() - kLogTail);
}

// In the child of a fork: only calls that are safe between fork and exec. 127: no such program.
[[noreturn]] void Exec(const std::vector<char*>& argv, const char* log, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  setpgid(0, 0);  // an interrupt of the terminal is the parent's to act on
  const int file = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int null = open("/dev/null", O_RDONLY);
  if (file < 0 || null < 0) _exit(127);
  dup2(null, STDIN_FILENO);
  dup2(file, STDOUT_FILENO);
  dup2(file, STDERR_FILENO);
  execv(argv.front(), argv.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<std::string> FindDaemon(const std::string& given) {
  std::error_code error;
  std::string path = given;
  if (path.empty()) {
    path = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "acuityd";
  }
  if (access(path.c_str(), X_OK) != 0 || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(
        absl::StrCat("daemon: no program ", path, "; name acuityd with --daemon"));
  }
  return path;
}

absl::StatusOr<std::unique_ptr<ChildDaemon>> ChildDaemon::Start(
    const std::string& program, const std::vector<std::string>& arguments,
    const std::string& folder, const volatile int* interrupted) {
  const std::string socket = absl::StrCat(folder, "/socket");
  const std::string address = absl::StrCat("unix:", socket);
  std::vector<std::string> all = {program, "--listen", address, "--metrics-listen", ""};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string log = absl::StrCat(folder, "/log");
  unlink(socket.c_str());  // of an earlier daemon
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ResourceExhaustedError(absl::StrCat("fork: ", std::strerror(errno)));
  if (pid == 0) Exec(argv, log.c_str(), parent);
  std::unique_ptr<ChildDaemon> daemon(new ChildDaemon(pid, log));
  CommonOptions common;
  common.server = address;
  daemon->connection_ = Connect(common);
  for (;; std::this_thread::sleep_for(kPoll)) {
    const absl::Status status = daemon->Check();
    if (!status.ok()) return status;
    if (*interrupted != 0) return absl::CancelledError("interrupted");
    if (access(socket.c_str(), F_OK) != 0) continue;  // a failed call would be followed by a pause
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    if (daemon->connection_.stub->ListModels(&context, {}, &response).ok()) return daemon;
  }
}

absl::Status ChildDaemon::Check() {
  int status = 0;
  if (pid_ == 0 || waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = 0;
    return absl::UnavailableError(absl::StrCat(
        "acuityd ended (", WIFSIGNALED(status) ? "signal " : "exit code ",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), "):\n", Tail(log_)));
  }
  return absl::OkStatus();
}

ChildDaemon::~ChildDaemon() {
  if (pid_ == 0) return;
  kill(pid_, SIGTERM);
  for (int i = 0; i < kPollsToEnd && Check().ok(); ++i) std::this_thread::sleep_for(kPoll);
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace acuity::client
