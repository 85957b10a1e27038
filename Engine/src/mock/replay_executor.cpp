#include "mock/replay_executor.h"

namespace blas_engine {

ReplayExecutor::ReplayExecutor(Recording recording, std::vector<MockFault> faults)
    : ScriptedExecutor(false), recording_(std::move(recording)), faults_(std::move(faults)) {
    info_.model = "replay";
    info_.architecture = "replay";
    info_.dtype = recording_.dtype;
    info_.vocab_size = recording_.vocab_size;
    info_.max_position = recording_.max_position;
    for (size_t i = 0; i < recording_.answers.size(); ++i) {
        prompts_[recording_.answers[i].prompt_key].answers.push_back(i);
        all_.answers.push_back(i);
    }
}

double ReplayExecutor::begin(Request& request) {
    const auto found = prompts_.find(prompt_key(request.prompt()));
    Prompt& prompt = found != prompts_.end() ? found->second : all_;
    request.script.answer = prompt.answers[prompt.next++ % prompt.answers.size()];
    request.script.origin = came_in_at(request);
    return request.script.origin + recording_.answers[request.script.answer].times.front();
}

double ReplayExecutor::produce(Request& request, double) {
    Request::Script& script = request.script;
    const Recording::Answer& answer = recording_.answers[script.answer];
    const uint32_t begin = script.step == 0 ? 0 : answer.ends[script.step - 1];
    request.new_tokens.assign(answer.tokens.begin() + begin, answer.tokens.begin() + answer.ends[script.step]);
    faults_.apply(request, request.num_output_tokens() == 0);
    if (++script.step == answer.times.size()) {
        script.step = 0;
        const size_t count = answer.times.size();
        const double gap = answer.times[count - 1] - (count > 1 ? answer.times[count - 2] : 0);
        script.origin += answer.times[count - 1] + gap - answer.times.front();
    }
    return script.origin + answer.times[script.step];
}

}  // namespace blas_engine
