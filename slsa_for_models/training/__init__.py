"""What any training needs: the run, its environment, doing it again."""
