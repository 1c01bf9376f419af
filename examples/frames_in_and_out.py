"""Events in a pandas or polars frame in, recommendations in the same kind of frame out.

python examples/frames_in_and_out.py     needs: pip install pandas polars
"""

import pandas as pd
import polars as pl

import recvae


def event_frame() -> pd.DataFrame:
    """Events as in a log, with names for users and items; here from the sample."""
    sample = recvae.load_dataset("sample")
    cells = sample.matrix.tocoo()
    people = [f"person-{number:04d}" for number in sample.user_ids]
    return pd.DataFrame(
        {"person": [people[row] for row in cells.row], "film": sample.titles[cells.col], "stars": 4 + cells.col % 2}
    )


def main():
    """Fit on a pandas frame, recommend to some of its users, then to new users in a polars frame."""
    events = event_frame()
    print(f"{len(events):,} events of {events['person'].nunique():,} people:\n{events.head(3)}\n")

    data = recvae.Interactions.from_frame(events, user="person", item="film", value="stars", min_value=4)
    model = recvae.MultVAE(epochs=10, random_state=0).fit(data)

    some = events[events["person"].isin(["person-0001", "person-0002"])]
    lists = model.recommend_for(some, N=3, user="person", item="film")
    print(f"from pandas to {type(lists).__module__}:\n{lists}\n")

    new_users = pl.DataFrame({"who": ["ann", "ann", "bob"], "what": events["film"].unique()[:3].tolist()})
    lists = model.recommend_for(new_users, N=3, user="who", item="what")
    best = lists.group_by("user", maintain_order=True).agg(pl.col("item").alias("next films"))
    print(f"from polars to {type(lists).__module__}:\n{best}")


if __name__ == "__main__":
    main()
