def document(limits: object) -> dict[str, object]:
    return {}
