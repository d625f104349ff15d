// What every call that generates does, whatever its protocol: from the engine's events to messages
// that gRPC writes one at a time.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <deque>
#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "acuity/v1/acuity.pb.h"
#include "server/grpc/admission.h"

namespace acuity::server {

// Base of a gRPC reactor that answers one request or several.
//
//   grammar:  Open  ( Run )*  Close  ...  OnGone
//
// Derive publicly (enable_shared_from_this does not work otherwise). Lives until both gRPC and the
// engine are done with it. Events arrive on the engine thread, completions on gRPC's. At most one
// write is under way; what comes meanwhile is gathered. A reader that is 64 KiB behind, or has not
// taken a message for 10 s, has its call cancelled: it must not hold memory.
class AnsweringCall : public std::enable_shared_from_this<AnsweringCall> {
 public:
  // The answer to one request: what the engine said and nobody has sent yet.
  class Answer : public engine::EventSink {
   public:
    bool OnToken(engine::TokenEvent event) final;
    void OnResult(engine::RequestResult result) final;

    // For Send:
    bool ended() const { return ended_; }  // the engine has nothing more to say
    const absl::Status& status() const { return status_; }

   protected:
    // To be sent in one piece at the end, however long it gets. Before it is submitted.
    void set_whole() { whole_ = true; }

   private:
    friend class AnsweringCall;
    bool something() const { return ended_ || (!whole_ && gathered_.deltas_size() > 0); }

    bool whole_ = false;
    std::shared_ptr<AnsweringCall> call_;
    Admission admission_;
    // Guarded by the call's mutex:
    v1::GenerateResponse gathered_;
    size_t gathered_bytes_ = 0;  // 0 if whole_
    bool ended_ = false;
    absl::Status status_;
  };

  virtual ~AnsweringCall() = default;

 protected:
  explicit AnsweringCall(grpc::CallbackServerContext* context) : context_(context) {}

  // Keeps this alive until OnGone.
  void Open() { self_ = shared_from_this(); }
  // Admits and submits a request; its answer, or the reason why there is none, is sent in turn.
  void Run(std::shared_ptr<Answer> answer, const ServiceContext& services, const std::string& model,
           MakeRequest make);
  // No more Run: the call finishes when everything is sent.
  void Close(const absl::Status& status = absl::OkStatus());
  int num_answers() const;  // of those not sent to their ends

  // To be called from the reactor's methods of that name.
  void OnWritten(bool ok);
  void OnCancelled();
  void OnGone();

  // Sends some of an answer: what was gathered since the last time, which may be nothing once it
  // ended. False if it wants to be called again, with nothing, before the answer is done. Calls
  // NoteWrite if it started a write. Under the mutex.
  virtual bool Send(Answer& answer, v1::GenerateResponse gathered) = 0;
  // An answer was sent to its end. Not under the mutex.
  virtual void OnAnswered() {}
  virtual void FinishCall(const grpc::Status& status) = 0;  // under the mutex
  void NoteWrite();
  void set_status(const absl::Status& status) { status_ = status; }  // the call's; under the mutex

 private:
  bool Gather(Answer* answer, engine::TokenEvent event);
  void End(Answer* answer, const absl::Status& status, v1::GenerateResult* result);
  int Pump();      // sends what there is; how many answers were done; under the mutex
  void Discard();  // under the mutex
  void Watch(absl::Time when);
  void CheckWrite();

  grpc::CallbackServerContext* const context_;
  std::shared_ptr<AnsweringCall> self_;

  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<Answer>> answers_;  // the next to be sent first
  size_t gathered_bytes_ = 0;                    // of all answers
  bool write_under_way_ = false;
  absl::Time write_started_;
  std::unique_ptr<grpc::Alarm> alarm_;  // set while writes are watched
  bool closed_ = false;
  bool finished_ = false;
  absl::Status status_;
};

}  // namespace acuity::server
