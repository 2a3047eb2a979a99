"""Membership inference against a regressor: who was in the training data?"""
