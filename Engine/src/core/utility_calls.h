// The calls that a frontend makes to the engine itself (vLLM: UTILITY requests).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/engine_core.h"
#include "wire/msgpack_reader.h"
#include "wire/msgpack_writer.h"

namespace blas_engine {

class UtilityCalls {
  public:
    explicit UtilityCalls(EngineCore& core) : core_(core) {}

    // Answers every call, at once or (waiting for requests to end) later: frontends have no timeout.
    void call(const UtilityMessage& message);

  private:
    // Arguments of the call, positional; missing ones read as nil.
    class Arguments;
    using Method = void (UtilityCalls::*)(Arguments&);
    struct Entry {
        const char* name;
        Method method;
    };
    static const Entry methods_[];

    void get_supported_tasks(Arguments&);
    void no_op(Arguments&);
    void reset_prefix_cache(Arguments&);
    void sleep(Arguments&);
    void wake_up(Arguments&);
    void is_sleeping(Arguments&);
    void release_kv_cache_memory(Arguments&);
    void pause_scheduler(Arguments&);
    void pause_generation(Arguments&);
    void resume_scheduler(Arguments&);
    void is_scheduler_paused(Arguments&);
    void set_weight_version(Arguments&);
    void get_weight_version(Arguments&);
    void collective_rpc(Arguments&);
    void get_kv_cache_group_metadata(Arguments&);
    void without_lora(Arguments&);
    void without_profiler(Arguments&);
    void unsupported(Arguments&);

    void pause(const std::string& mode, bool clear_cache, bool sleep);
    bool asleep() const;
    MsgpackWriter result();

    EngineCore& core_;
    UtilityResult result_;
    int client_index_ = 0;
    bool deferred_ = false;
};

}  // namespace blas_engine
