"""A loss that keeps its contract, and one for every way to break it."""

import torch


def good(student, teacher, *, weight=1.0):
    return (student - teacher).square().mean() * weight


def unreduced(student, teacher):
    return (student - teacher).square()


def whole(student, teacher):
    return (student - teacher).square().mean().long()


def infinite(student, teacher):
    return (student - teacher).square().mean() / 0


def plain(student, teacher):
    return float((student - teacher).square().mean())


def detached(student, teacher):
    return (student.detach() - teacher).square().mean()


def constant(student, teacher):
    return (student * 0).sum() + 1


def steep(student, teacher):
    return (student - student.detach()).abs().sqrt().mean()


def writing(student, teacher):
    loss = (student - teacher).square().mean()
    student.data.mul_(2)
    return loss


def writing_teacher(student, teacher):
    teacher.zero_()
    return (student - teacher).square().mean()


def random(student, teacher):
    return (student - teacher).square().mean() * torch.rand(())


def comparing_samples(student, teacher):
    rows = [each.float().flatten(1) for each in (student, teacher)]
    spread = [torch.cdist(each, each) for each in rows]
    ours, theirs = (distances / distances.mean().clamp_min(1e-6) for distances in spread)
    return (ours - theirs).square().mean()


def mostly_labels(student, teacher, labels):
    """Nine parts of a cross entropy with labels, and one of the distance to a teacher."""
    scores = student.flatten(1).float()
    distance = (student.float() - teacher.float()).square().mean()
    return 0.9 * torch.nn.functional.cross_entropy(scores, labels) + 0.1 * distance
