"""Open Instruct's verifiers as the published fork and as today's upstream offer them, and nothing else.

A stand-in in our own words, written to disk by tests that launch it, and the probe that they
run on the real modules.
"""

JUDGE_UTILS = {
    "fork": 'JUDGE_PROMPT_MAP = {"quality": "{input}", "flip": "{output}"}',
    "upstream": 'JUDGE_PROMPT_MAP = {"quality": "{input}"}',
}

# @names@ stand for what differs between the two.
GROUND_TRUTH_UTILS = """
import asyncio, dataclasses, logging, sys
from abc import ABC, abstractmethod
from open_instruct.judge_utils import JUDGE_PROMPT_MAP
assert "flip_plugin.verifier" not in sys.modules
logging.basicConfig(level=logging.INFO)

@dataclasses.dataclass
class VerifierConfig:
    @classmethod
    def from_args(cls, @sources@):
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{n: getattr(s, n) for s in @all_sources@ for n in names if s is not None and hasattr(s, n)})

@dataclasses.dataclass
class LMJudgeVerifierConfig(VerifierConfig):
    llm_judge_model: str
    llm_judge_max_tokens: int
    llm_judge_max_context_length: int
    llm_judge_temperature: float
    llm_judge_timeout: int
    seed: int

@dataclasses.dataclass
class VerificationResult:
    score: float
    cost: float = 0.0
    reasoning: str | None = None

class VerifierFunction(ABC):
    def __init__(self, name, weight=1.0, verifier_config=None):
        self.name, self.weight, self.verifier_config = name, weight, verifier_config

    @classmethod
    def get_config_class(cls):
        return VerifierConfig

    @abstractmethod
    def __call__(self, tokenized_prediction, prediction, label, query=None@state@): ...

    async def async_call(self, tokenized_prediction, prediction, label, query=None@state@):
        return await asyncio.to_thread(self, tokenized_prediction, prediction, label, query)

class LMJudgeVerifier(VerifierFunction):
    def __init__(self, judge_type, verifier_config):
        super().__init__(f"general-{judge_type}", verifier_config=verifier_config)

    def __call__(self, tokenized_prediction, prediction, label, query=None@state@):
        raise AssertionError("the checkout's own judge was asked")

def build_all_verifiers(@build@):
    found = {}
    for cls in VerifierFunction.__subclasses__():
        if cls is not LMJudgeVerifier:
            made = cls(cls.get_config_class().from_args(@given@))
            found[made.name.lower()] = made
    for judge_type in JUDGE_PROMPT_MAP:
        made = LMJudgeVerifier(judge_type, LMJudgeVerifierConfig.from_args(@given@))
        found[made.name.lower()] = made
    if @remap@:
        old, new = @remap@.split("=")
        found[old] = found[new]
    return found

@dataclasses.dataclass
class RewardConfig:
    verifier_functions: dict
    verification_reward: float = 10.0

    async def score(self, rows):
        calls = [
            self.verifier_functions[row["dataset"]].async_call(
                tokenized_prediction=[1], prediction=row["prediction"], label=row["label"],
                query=row["query"]@pass_state@
            )
            for row in rows
        ]
        return [self.verification_reward * result.score for result in await asyncio.gather(*calls)]
"""
DIFFERENCES = {
    "fork": {
        "sources": "args",
        "all_sources": "[args]",
        "state": "",
        "build": "args",
        "given": "args",
        "remap": "args.remap_verifier",
        "pass_state": "",
    },
    "upstream": {
        "sources": "*sources",
        "all_sources": "sources",
        "state": ", rollout_state=None",
        "build": "args, streaming_config=None",
        "given": "args, streaming_config",
        "remap": "streaming_config.remap_verifier",
        "pass_state": ', rollout_state={"rewards": [], "done": True}',
    },
}

SCRIPT = """
import os, sys
early = [name for name in sys.modules if name.startswith("open_instruct") or name == "flip_plugin.verifier"]
import argparse, asyncio, dataclasses, json, pickle
import open_instruct
from open_instruct.ground_truth_utils import RewardConfig, build_all_verifiers

@dataclasses.dataclass
class Rows:
    rows: list

def score(config, rows):
    return {"rewards": asyncio.run(config.score(rows.rows)), "pid": os.getpid(), "package": open_instruct.__file__}

def in_actor(config, rows):
    import ray
    ray.init(address="local", num_cpus=1, include_dashboard=False, runtime_env={"env_vars": dict(os.environ)})
    @ray.remote
    class Engine:
        def __init__(self, config):
            self.config = config
        def score(self, rows):
            return score(self.config, rows)
    found = ray.get(Engine.remote(config).score.remote(rows))
    ray.shutdown()
    return found

def main(args):
    verifiers = build_all_verifiers(@call@)
    config = RewardConfig(verifiers)
    pickle.loads(pickle.dumps(Rows([])))
    rows = Rows(json.load(open(args.rows)))
    found = (in_actor if args.with_ray else score)(pickle.loads(pickle.dumps(config)), rows)
    flip = type(verifiers["general-flip"])
    told = {"early": early, "argv": sys.argv, "main": __name__, "driver": os.getpid(), "path": sys.path[:2]}
    told |= {"verifier": [flip.__module__, flip.__qualname__], "names": sorted(verifiers)}
    told["pythonpath"] = os.environ["PYTHONPATH"].split(os.pathsep)
    print(json.dumps(told | found))

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows")
    parser.add_argument("--remap_verifier")
    parser.add_argument("--with_ray", action="store_true")
    parser.add_argument("--llm_judge_model", default="hosted_vllm/m")
    parser.add_argument("--llm_judge_timeout", type=float, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.set_defaults(llm_judge_max_tokens=99, llm_judge_max_context_length=8192, llm_judge_temperature=1.0)
    main(parser.parse_known_args()[0])
"""


def fill(text, values):
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def write(package, variant):
    """Write the stand-in's files to the folder `package`; the path of its script."""
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "judge_utils.py").write_text(JUDGE_UTILS[variant])
    (package / "ground_truth_utils.py").write_text(fill(GROUND_TRUTH_UTILS, DIFFERENCES[variant]))
    call = {"fork": "args", "upstream": "argparse.Namespace(seed=args.seed), args"}[variant]
    (package / "grpo_fast.py").write_text(fill(SCRIPT, {"call": call}))
    return package / "grpo_fast.py"


# What the real ground_truth_utils imports and this environment may lack; none of it is used for a judgement.
STUBBED = ("antlr4", "backoff", "beaker", "docker", "google", "immutabledict", "langdetect", "nltk", "peft", "wandb")

REAL = """
import asyncio, importlib.abc, importlib.machinery, importlib.util, inspect, json, pickle, sys, types

class Stub(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        nothing = lambda *_, **__: None
        return type(name, (), {"__init__": nothing, "__getattr__": lambda self, _: nothing})

class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in STUBBED:
            stubbed.add(name.split(".")[0])
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return Stub(spec.name)
    def exec_module(self, module):
        pass

stubbed = set()
sys.meta_path.append(Stubs())
from open_instruct import ground_truth_utils as real

args = types.SimpleNamespace(
    llm_judge_model="hosted_vllm/m", llm_judge_max_tokens=99, llm_judge_max_context_length=8192,
    llm_judge_temperature=0.0, llm_judge_timeout=20, seed=1, remap_verifier="general-quality=general-flip",
    code_api_url="http://127.0.0.1:1/test_program", code_max_execution_time=1.0,
    code_pass_rate_reward_threshold=0.0, code_apply_perf_penalty=False, max_length_verifier_max_length=32768,
)
new = "streaming_config" in inspect.signature(real.build_all_verifiers).parameters
verifiers = real.build_all_verifiers(args, args) if new else real.build_all_verifiers(args)
config = pickle.loads(pickle.dumps(real.RewardConfig(verifier_functions=verifiers)))
asked = "Write a haiku\\nabout autumn"
responses, labels = ["Leaves", "<think>hm</think>Leaves", "", "Leaves"], [asked, asked, asked, "  "]
n = len(responses)
infos = types.SimpleNamespace(
    timeouts=[0] * n, tool_errors=[""] * n, tool_outputs=[""] * n, tool_calleds=[False] * n, rollout_states=None
)
names = ["general-flip", "general-quality", "general-flip", "general-flip"]
scores, metrics = asyncio.run(
    config.build()([[1]] * n, responses, labels, names, ["stop"] * n, infos, queries=[f"user: {asked}"] * n)
)
flip = type(verifiers["general-flip"])
print(json.dumps({
    "file": real.__file__, "verifier": [flip.__module__, flip.__qualname__], "count": len(verifiers), "scores": scores,
    "reward": float(metrics["objective/general-flip_reward"]), "stubbed": sorted(stubbed),
}))
"""
