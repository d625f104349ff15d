#include "clients/cpp/eval_command_line.h"

#include "clients/cpp/command_line.h"

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

void EvalCommand::AddNeedle(CLI::App& eval, CommonOptions& common, int& code) {
  CLI::App* needle = Add(eval, common, "needle", "Whether they recall what a long prompt hid");
  CLI::Option_group* what = needle->add_option_group("haystack");
  what->add_option("--task", needle_.task_file, "Keyed recall of tokens: a task's JSON file")
      ->type_name("FILE");
  what->add_option("--text", needle_.text_files, "Text files to hide a sentence in")
      ->type_name("FILE...");
  what->require_option(1);
  needle
      ->add_option("--lengths", needle_.lengths,
                   "Tokens of the prompts; default: doubling, to 32 times the task's trained "
                   "length or from 512 to 8192")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,N,...");
  needle->add_option("--depths", needle_.depths, "Where in the text the sentence is, in percent")
      ->delimiter(',')
      ->check(CLI::Range(0, 100))
      ->type_name("N,N,...");
  needle->add_option("--prompts", needle_.prompts, "Prompts of each length (and depth)")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  needle->add_option("--seed", options_.seed, "Of the prompts")->capture_default_str();
  needle->callback([this, &common, &code] {
    code = needle_.text_files.empty() ? EvalRecall(common, options_, needle_)
                                      : EvalHaystack(common, options_, needle_);
  });
}

void EvalCommand::AddPpl(CLI::App& eval, CommonOptions& common, int& code) {
  CLI::App* ppl = Add(eval, common, "ppl", "Loss of texts by position");
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
}

void EvalCommand::AddFlatness(CLI::App& eval, CommonOptions& common, int& code) {
  CLI::App* flatness =
      Add(eval, common, "flatness", "How flat attention is, by layer and context length");
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

void EvalCommand::AddTo(CLI::App& app, CommonOptions& common, int& code) {
  CLI::App* eval =
      app.add_subcommand("eval", "What the daemon's models make of long contexts, plotted");
  eval->require_subcommand(1);
  eval->fallthrough();
  AddNeedle(*eval, common, code);
  AddPpl(*eval, common, code);
  AddFlatness(*eval, common, code);
}

}  // namespace acuity::client
