"""MRCR: repeat the n-th of several answers to one and the same request in a long conversation.

Source: openai/mrcr on the Hugging Face hub (MIT), which is the set that the Kimi Linear paper names; metric of the second
protocol: google-deepmind/eval_hub @ 67b7fd2, eval_hub/mrcr_v2 (Apache-2.0).
"""
