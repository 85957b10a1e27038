"""A plugin for a real vLLM: the two collective operations of mixture-of-experts layers that its CPU build lacks.

Without them data-parallel engines of such a model start, and fail with NotImplementedError in their first step. Speed is no aim.
"""


def register():
    import torch
    import torch.distributed
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    def gather(self, part, sizes):
        parts = [torch.zeros((size, *part.shape[1:]), dtype=part.dtype) for size in sizes or [part.shape[0]] * self.world_size]
        parts[self.rank_in_group].copy_(part)
        for rank, buffer in enumerate(parts):
            torch.distributed.broadcast(buffer, src=self.ranks[rank], group=self.cpu_group)
        return torch.cat(parts)

    def all_gatherv(self, input_, dim=0, sizes=None):
        assert dim == 0
        if isinstance(input_, list):
            return [gather(self, part, sizes) for part in input_]
        return gather(self, input_, sizes)

    def reduce_scatterv(self, input_, dim=-1, sizes=None):
        assert dim == 0
        total = input_.contiguous().float()
        torch.distributed.all_reduce(total, group=self.cpu_group)
        sizes = sizes or [len(total) // self.world_size] * self.world_size
        return total.split(sizes)[self.rank_in_group].to(input_.dtype)

    CpuCommunicator.all_gatherv = all_gatherv
    CpuCommunicator.reduce_scatterv = reduce_scatterv
