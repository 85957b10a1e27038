import JSONBytes

extension FrontendLaunch {
    /// The words after the interpreter: the launcher script and one JSON object that says what to do.
    package func pythonCommandLine(
        script: String, listenDescriptor: Int32, inputDescriptor: Int32, outputDescriptor: Int32,
        inputAddress: String, outputAddress: String, argumentsJSON: String
    ) -> [String] {
        [
            script, argumentsJSON,
            "--listen-fd", String(listenDescriptor), "--listen-address", servedAddress,
            "--input-listener-fd", String(inputDescriptor), "--input-address", inputAddress,
            "--output-listener-fd", String(outputDescriptor), "--output-address", outputAddress,
            "--client-index", String(clientIndex), "--client-count", String(clientCount),
        ] + (coordinatorAddress.map { ["--stats-update-address", $0] } ?? [])
    }
}

/// Runs one API server worker of the vLLM that is installed in the interpreter, on descriptors it inherits. It is what
/// vLLM's own supervisor does in its multi-server mode, from 0.32 on.
package let pythonFrontendScript = """
    import argparse
    import json
    import multiprocessing
    import os
    import socket
    import sys


    def fail(message):
        print(f"vLLM's Python frontend cannot be started: {message}", file=sys.stderr, flush=True)
        sys.exit(2)


    def parse_launch():
        parser = argparse.ArgumentParser()
        parser.add_argument("arguments", type=json.loads)
        parser.add_argument("--listen-fd", type=int)
        parser.add_argument("--listen-address")
        for name in ("input", "output"):
            parser.add_argument(f"--{name}-listener-fd", type=int)
            parser.add_argument(f"--{name}-address")
        parser.add_argument("--client-index", type=int)
        parser.add_argument("--client-count", type=int)
        parser.add_argument("--stats-update-address")
        return parser.parse_args()


    def command_line(parser, model, arguments):
        # The inverse of what vLLM does for its Rust frontend: attribute names and JSON values back to options.
        words = [model]
        for name, value in arguments.items():
            option = "--" + name.replace("_", "-")
            action = parser._option_string_actions.get(option)
            if action is None:
                fail(f"this vLLM has no option {option}")
            if isinstance(value, bool):
                words.append(option if value else "--no-" + option[2:])
            elif isinstance(value, list) and action.nargs in ("+", "*"):
                words += [option, *(v if isinstance(v, str) else json.dumps(v) for v in value)]
            else:
                words += [option, value if isinstance(value, str) else json.dumps(value)]
        return words


    def main():
        launch = parse_launch()
        arguments = launch.arguments
        model = arguments.pop("model_tag")
        os.environ["VLLM_ENGINE_READY_TIMEOUT_S"] = str(arguments.pop("engine_ready_timeout_secs"))
        os.environ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = str(arguments.pop("http_timeout_keep_alive"))
        try:
            from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
            from vllm.utils.argparse_utils import FlexibleArgumentParser
            from vllm.v1.utils import run_api_server_worker_proc
        except ImportError as error:
            fail(f"it needs vLLM 0.32 or later in {sys.executable} ({error})")
        parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
        args = parser.parse_args(command_line(parser, model, arguments))
        if getattr(args, "model_tag", None) is not None:
            args.model = args.model_tag
        validate_parsed_serve_args(args)
        client_config = {
            "input_address": launch.input_address,
            "output_address": launch.output_address,
            "input_listener": socket.socket(fileno=launch.input_listener_fd),
            "output_listener": socket.socket(fileno=launch.output_listener_fd),
            "client_count": launch.client_count,
            "client_index": launch.client_index,
        }
        if launch.stats_update_address:
            client_config["stats_update_address"] = launch.stats_update_address
        # The name in its log lines.
        multiprocessing.current_process().name = "ApiServer" + (f"_{launch.client_index}" if launch.client_count > 1 else "")
        run_api_server_worker_proc(
            launch.listen_address, socket.socket(fileno=launch.listen_fd), args, client_config=client_config)


    if __name__ == "__main__":
        main()

    """
