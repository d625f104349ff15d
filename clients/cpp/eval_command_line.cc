#include "clients/cpp/command_line.h"
#include "clients/cpp/eval.h"

namespace acuity::client {

CLI::App* EvalCommand::Add(CLI::App& eval, CommonOptions& common, const char* name,
                           const char* about) {
  CLI::App* command = eval.add_subcommand(name, about);
  AddCommon(*command, common);
  command
      ->add_option("--model", options_.models,
                   "A line of the plots: NAME, or LABEL=NAME,NAME,... for the mean of several; "
                   "may be repeated; default: the daemon's first")
      ->allow_extra_args(false)
      ->type_name("MODEL");
  command->add_option("--out", options_.out, "Write results.json and report.html here")
      ->type_name("DIR");
  command->add_option("--concurrency", options_.concurrency, "Calls at a time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  return command;
}

void EvalCommand::AddTo(CLI::App& app, CommonOptions& common, int& code) {
  CLI::App* eval =
      app.add_subcommand("eval", "What the daemon's models make of long contexts, plotted");
  eval->require_subcommand(1);
  eval->fallthrough();

  CLI::App* needle = Add(*eval, common, "needle", "Whether they recall what a long prompt hid");
  needle->add_option("--task", needle_.task_file, "A keyed recall task, JSON")
      ->type_name("FILE")
      ->required();
  needle
      ->add_option("--lengths", needle_.lengths,
                   "Tokens of the prompts; default: 1, 2, 4, ... 32 times the trained length")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,N,...");
  needle->add_option("--prompts", needle_.prompts, "Prompts of each length")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  needle->add_option("--seed", options_.seed, "Of the prompts")->capture_default_str();
  needle->callback([this, &common, &code] { code = EvalNeedle(common, options_, needle_); });

  CLI::App* ppl = Add(*eval, common, "ppl", "Loss of texts by position");
  ppl->add_option("--text", ppl_.text_files, "Text files")->type_name("FILE...")->required();
  ppl->add_option("--window", ppl_.window,
                  "Tokens of one prompt; default: the smallest context of the models, at most "
                  "16384")
      ->check(CLI::Range(2, 1 << 20));
  ppl->add_option("--max-tokens", ppl_.max_tokens, "Tokens of each text, at most")
      ->check(CLI::Range(2, 1 << 30))
      ->capture_default_str();
  ppl->add_option("--bucket", ppl_.bucket, "Positions of one point; default: powers of two")
      ->check(CLI::Range(1, 1 << 20));
  ppl->callback([this, &common, &code] { code = EvalPpl(common, options_, ppl_); });

  CLI::App* flatness =
      Add(*eval, common, "flatness", "How flat attention is, by layer and context length");
  flatness->add_option("--text", flatness_.text_files, "Text files")
      ->type_name("FILE...")
      ->required();
  flatness
      ->add_option("--tokens", flatness_.tokens,
                   "Tokens of one prompt; default: what the smallest context leaves, at most 8192")
      ->check(CLI::Range(2, 1 << 20));
  flatness->add_option("--prompts", flatness_.prompts, "Prompts of each text, at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  flatness->callback([this, &common, &code] { code = EvalFlatness(common, options_, flatness_); });
}

}  // namespace acuity::client
