"""What holds for any text under a recipe: properties of its tokenization, and `hold` to try one.

```python
ftcheck.properties.hold("length-is-max-length", ["a text", ""], "my.recipe.toml")
```
"""

from ftcheck.properties import suite  # noqa: F401 - fills the registry
from ftcheck.properties.registry import PROPERTIES, Property, find, hold
from ftcheck.properties.subject import PropertyFailed, Subject

__all__ = ["PROPERTIES", "Property", "PropertyFailed", "Subject", "find", "hold"]
