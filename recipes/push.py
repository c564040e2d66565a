"""Push a trained model, or an adapter, to the Hugging Face Hub.

    python recipes/push.py runs/<id> repo=me/nmt-de-en private=true --dry-run
    python recipes/push.py runs/<id> repo=me/nmt-de-en private=true license=cc-by-4.0
    python recipes/push.py runs/<id>/adapter repo=me/nmt-de-en-lora base_model=owner/name

All of it goes into one commit: weights, configuration, tokenizer, generation settings, code, pipeline, and a card
written from the records of the run. Nothing is asked of the network before the folder is found whole; pickles and what
looks like a secret are refused. --dry-run lists the files. Prints the address of the commit.

The token is that of `hf auth login` or HF_TOKEN, with the right to write; it is never an argument, as arguments are
kept by the shell. If the push is interrupted, nothing of it is there, and the same command completes it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.config import Settings, from_command_line, interrupts_told, launch

with interrupts_told():
    from hf_nmt.cards import CardChoices
    from hf_nmt.errors import NmtError
    from hf_nmt.sharing import CardSource, card_text, check_card, contents_of, name_problem, push_to_hub

logger = logging.getLogger("hf_nmt.recipes.push")


class PushRecipe(Settings):
    folder: str | None = Field(
        None, description="Run folder, whose best model is taken, or the folder of a saved model or adapter. Needed."
    )
    repo: str | None = Field(
        None,
        description="owner/name on the Hub, or a name alone for one of yours; made where there is none. Needed.",
    )
    private: bool | None = Field(
        None,
        description="Visibility of a new repository; null takes its owner's default. An older one keeps its own.",
    )
    revision: str | None = Field(None, description="Branch, made where there is none; null is main.")
    create_pr: bool = Field(False, description="Open a pull request in place of a commit to the branch.")
    exist_ok: bool | None = Field(
        None,
        description="Whether the repository may be there already. null: where it is empty or holds a model of this "
        "kind and these languages, as one pushes a new version; another model is replaced with true only.",
    )
    commit_message: str | None = Field(None, description="Null writes one.")
    card: CardSource = Field(
        "auto",
        description="auto: written from the records of the run, unless a person has changed it, here or on the Hub; "
        "keep: the one that is there; write: written anew in any case.",
    )
    license: str | None = Field(
        None, description="Of the model, for the card: an id of the Hub's list, such as cc-by-4.0; null leaves it out."
    )
    base_model: str | None = Field(
        None, description="Id of the model that was trained further; needed for an adapter of a model in a folder."
    )
    num_samples: int = Field(
        0,
        ge=0,
        description="Sample translations of the last validation in the card; 0, as they make sentences of your text "
        "public.",
    )
    scores: list[str] = Field(
        [], description="Folders that recipes/validate.py wrote for this model; their scores go into the card."
    )

    @property
    def choices(self) -> CardChoices:
        return CardChoices(self.repo, self.license, self.base_model, self.num_samples, self.scores)

    def check_files(self) -> list[str]:
        """Lists what would be pushed, too."""
        findings = []
        if self.repo is None:
            findings.append("repo: none is given. Write repo=owner/name, such as repo=me/nmt-de-en.")
        elif problem := name_problem(self.repo):
            findings.append(f"repo: {problem}")
        try:
            check_card(self.card, self.choices)
            if self.folder is None:
                raise NmtError("folder: none is given. Write runs/<id> after the name of the recipe.")
            contents = contents_of(self.folder, base_model=self.base_model)
            text = card_text(contents, self.card, self.choices) if self.card != "keep" else None
        except NmtError as error:
            return [*findings, *getattr(error, "findings", [str(error)])]
        note = "written from the run" if text is not None else "as it is there, or a short one"
        logger.info("%s\n%s", Path(contents.folder), "\n".join([*contents.lines(), f"{'card':>10}  {note}"]))
        return findings


SETTINGS = PushRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(PushRecipe, argv, recipe="push", doc=__doc__, positional="folder")
    options = {name: getattr(settings, name) for name in PushRecipe.model_fields if name not in ("folder", "repo")}
    commit = push_to_hub(settings.folder, settings.repo, **options)
    sys.stdout.write(f"{commit.pr_url or commit.commit_url}\n")
    return 0


if __name__ == "__main__":
    launch(main)
