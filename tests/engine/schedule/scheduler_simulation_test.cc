// Random traffic against the real scheduler and cache, with every step checked by FakeEngine.
// ACUITY_SIMULATION_STEPS: about how many steps in all; the default is for a release build.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "tests/engine/schedule/fake_engine.h"

namespace acuity::engine {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

int64_t SimulationSteps() {
  const char* steps = std::getenv("ACUITY_SIMULATION_STEPS");
  return steps == nullptr ? 1'000'000 : std::atoll(steps);
}

// One random server and its random callers, all from one seed.
class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed), options_(RandomOptions(seed)), engine_(options_) {
    for (std::vector<TokenId>& text : texts_) {
      text.resize(256);
      for (TokenId& token : text) token = Below(100);
    }
    load_ = 1 + Below(70);
    steps_per_cancel_ = 5 + Below(200);
    const int capacity = options_.num_blocks * options_.block_size;
    prompt_limit_ = std::min(capacity, Below(3) == 0 ? 160 : 16);
    output_limit_ = std::clamp(capacity - prompt_limit_, 1, Below(3) == 0 ? 20 : 160);
  }

  void Run(int steps) {
    for (int i = 0; i < steps && !engine_.failed(); ++i) {
      while (Below(100) < load_) Submit();
      if (Below(steps_per_cancel_) == 0 && !live_.empty())
        engine_.Cancel(live_[Below(live_.size())]);
      Step();
    }
    // Whoever ranks first gets at least a token in each step, and recomputes at most all it has
    // each time somebody else goes first: far fewer steps than this.
    int64_t left = 200'000;
    while (!engine_.idle() && !engine_.failed() && left-- > 0) Step();
    if (engine_.failed()) return;
    EXPECT_TRUE(engine_.idle()) << "seed " << options_.seed;
    EXPECT_EQ(engine_.pool().free_blocks(), engine_.pool().num_blocks());
    engine_.pool().CheckInvariants();
    for (const uint64_t id : live_) EXPECT_FALSE(engine_.Live(id)) << "seed " << options_.seed;
  }

  const FakeEngine& engine() const { return engine_; }

 private:
  int Below(size_t bound) { return static_cast<int>(random_() % bound); }

  FakeEngineOptions RandomOptions(uint64_t seed) {
    FakeEngineOptions options;
    options.seed = seed;
    options.block_size = 1 << Below(5);
    if (Below(4) == 0) options.block_size = 1 + Below(11);
    options.num_blocks = 2 + Below(Below(2) == 0 ? 16 : 120);
    options.limits.max_batch_tokens = 1 + Below(Below(2) == 0 ? 8 : 64);
    options.limits.max_running = 1 + Below(12);
    options.limits.max_logit_rows = 1 + Below(Below(2) == 0 ? 6 : 32);
    options.limits.max_waiting = 1 + Below(40);
    options.limits.max_waiting_tokens = 1 + Below(2000);
    options.error_rate = Below(3) == 0 ? 0.01 : 0;
    options.check_every_step = seed % 4 == 0;
    return options;
  }

  void Submit() {
    Request request;
    const std::vector<TokenId>& text = texts_[Below(texts_.size())];
    const int size = 1 + Below(prompt_limit_);
    request.prompt.assign(text.begin(), text.begin() + Below(size + 1));
    while (static_cast<int>(request.prompt.size()) < size) request.prompt.push_back(Below(100));
    request.score = Below(7) == 0;
    if (!request.score && Below(6) == 0) {
      request.pooling = Below(2) == 0 ? Pooling::kLast : Pooling::kMean;
    }
    const int left = options_.num_blocks * options_.block_size - size;
    request.sampling.max_tokens = 1 + Below(Below(50) == 0 ? left + 2 : output_limit_);
    request.sampling.n = Below(5) == 0 ? 1 + Below(5) : 1;
    request.sampling.ignore_eos = Below(4) != 0;
    request.priority = Below(3) == 0 ? Below(5) - 2 : 0;
    request.cache_salt = std::string(Below(3), 'x');
    request.tenant = std::string(1, 'a' + Below(4));
    request.arrival = now_ - absl::Milliseconds(Below(3));
    if (Below(10) == 0) request.deadline = now_ + absl::Milliseconds(Below(5000));
    const uint64_t id = engine_.Submit(std::move(request));
    if (id != 0) live_.push_back(id);
  }

  void Step() {
    now_ += absl::Milliseconds(Below(100) == 0 ? Below(20'000) : Below(100));
    engine_.Step(now_);
    for (const uint64_t id : engine_.finished_ids()) std::erase(live_, id);
  }

  std::mt19937_64 random_;
  FakeEngineOptions options_;
  FakeEngine engine_;
  std::array<std::vector<TokenId>, 3> texts_;
  std::vector<uint64_t> live_;
  absl::Time now_ = kStart;
  int load_ = 0;  // of 100: how likely one more request is
  int steps_per_cancel_ = 0;
  int prompt_limit_ = 0, output_limit_ = 0;
};

TEST(SchedulerSimulation, KeepsEveryPromise) {
  FakeEngineCounts total;
  int64_t events = 0;
  for (uint64_t seed = 1; total.steps < SimulationSteps(); ++seed) {
    Simulation simulation(seed);
    simulation.Run(400);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    const FakeEngineCounts& counts = simulation.engine().counts();
    events += counts.events();
    total.steps += counts.steps;
    total.tokens += counts.tokens;
    total.preemptions += counts.preemptions;
    total.cached_tokens += counts.cached_tokens;
    for (const auto& [reason, count] : counts.finished) total.finished[reason] += count;
  }
  std::cout << events << " events in " << total.steps << " steps, " << total.tokens << " tokens, "
            << total.preemptions << " preemptions, " << total.cached_tokens << " shared tokens\n";
  // What never happened was not tested.
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
        FinishReason::kDeadline, FinishReason::kError}) {
    EXPECT_GT(total.finished[reason], 0) << static_cast<int>(reason);
  }
  EXPECT_GT(total.preemptions, 0);
  EXPECT_GT(total.cached_tokens, 0);
}

TEST(SchedulerSimulation, SameSeedSamePlans) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation a(seed), b(seed);
    a.Run(100);
    b.Run(100);
    EXPECT_EQ(a.engine().trace(), b.engine().trace());
    EXPECT_EQ(a.engine().counts().events(), b.engine().counts().events());
  }
}

// Two tenants that always have more to do, one with ten times the requests and another length of
// prompts and outputs: each has its half of the tokens. A third that comes by is served at once.
TEST(SchedulerSimulation, TenantsShareEqually) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    std::mt19937_64 random(seed);
    const SchedulerLimits limits{.max_batch_tokens = 64,
                                 .max_running = static_cast<int>(1 + random() % 12)};
    BlockPool pool(400, 4);
    Scheduler scheduler(limits, &pool);
    absl::Time now = kStart;
    std::map<std::string, int64_t> served, waiting;
    uint64_t id = 0;
    const auto add = [&](const std::string& tenant, int prompt, int output) {
      auto request = std::make_shared<Request>();
      request->id = RequestId{++id};
      request->tenant = tenant;
      request->prompt.assign(1 + random() % prompt, static_cast<TokenId>(id));
      request->sampling.max_tokens = static_cast<int>(1 + random() % output);
      request->arrival = now;
      ASSERT_TRUE(scheduler.Add(std::move(request)).ok());
      ++waiting[tenant];
    };
    StepPlan plan;
    std::vector<StepResult> results;
    int guest_waits = 0;
    for (int step = 0; step < 6000; ++step) {
      while (waiting["many"] < 100) add("many", 20, 30);
      while (waiting["few"] < 10) add("few", 90, 8);
      if (step % 500 == 499) add("guest", 10, 5);
      scheduler.Plan(now += absl::Milliseconds(20), &plan);
      results.clear();
      for (const ScheduledSequence& s : plan.scheduled) {
        const Sequence& sequence = *s.sequence;
        const std::string& tenant = sequence.request->tenant;
        if (sequence.computed == 0) --waiting[tenant];
        if (step >= 500) served[tenant] += s.num_tokens;
        StepResult result;
        if (s.samples) result.token = 1;
        if (s.samples && sequence.num_output() + 1 == sequence.request->sampling.max_tokens) {
          result.finish = FinishReason::kLength;
        }
        results.push_back(result);
      }
      scheduler.Commit(plan, results);
      guest_waits = waiting["guest"] > 0 ? guest_waits + 1 : 0;
      // Where one runs at a time: the one that does has to end, and one of each of the others that
      // is level or was passed too often goes first; the longest takes 31 steps.
      ASSERT_LE(guest_waits, 80) << "seed " << seed << ", step " << step;
    }
    const double ratio = static_cast<double>(served["many"]) / static_cast<double>(served["few"]);
    EXPECT_LE(std::max(ratio, 1 / ratio), 1.25) << "seed " << seed;
    std::cout << limits.max_running << " run: " << ratio << " ";
  }
  std::cout << "\n";
}

// A cache of one and a half sequences and sixteen callers who never let go.
TEST(SchedulerSimulation, KvStorm) {
  constexpr int kClients = 16, kRequestsEach = 8, kPrompt = 64, kOutput = 64, kBlockSize = 16;
  for (const bool same_prompt : {false, true}) {
    FakeEngineOptions options;
    options.block_size = kBlockSize;
    options.num_blocks = 3 * (kPrompt + kOutput) / (2 * kBlockSize);
    options.seed = 1;
    FakeEngine engine(options);
    std::mt19937_64 random(1);
    absl::Time now = kStart;
    const auto submit = [&] {
      Request request;
      request.prompt.resize(kPrompt);
      for (TokenId& token : request.prompt) token = same_prompt ? 5 : random() % 100;
      request.sampling.max_tokens = kOutput;
      request.sampling.ignore_eos = true;
      request.arrival = now;
      EXPECT_NE(engine.Submit(std::move(request)), 0u);
    };
    int submitted = kClients;
    for (int i = 0; i < kClients; ++i) submit();
    // One after another, computing nothing twice, would take this many.
    constexpr int kSerialSteps = kClients * kRequestsEach * (kOutput + 1);
    while (!engine.idle() && !engine.failed() && engine.counts().steps <= kSerialSteps) {
      engine.Step(now += absl::Milliseconds(10));
      for (size_t i = 0; i < engine.finished_ids().size(); ++i) {
        if (submitted < kClients * kRequestsEach) submit(), ++submitted;
      }
    }
    ASSERT_FALSE(engine.failed());
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(engine.counts().finished.at(FinishReason::kLength), kClients * kRequestsEach);
    EXPECT_LE(engine.counts().steps, kSerialSteps);
    EXPECT_TRUE(same_prompt || engine.counts().preemptions > 0);
    std::cout << engine.counts().steps << " steps of " << kSerialSteps << " in series, "
              << engine.counts().preemptions << " preemptions, "
              << static_cast<double>(engine.counts().tokens) /
                     (kClients * kRequestsEach * (kPrompt + kOutput - 1))
              << " of the tokens computed\n";
  }
}

}  // namespace
}  // namespace acuity::engine
